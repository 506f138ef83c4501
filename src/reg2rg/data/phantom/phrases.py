"""The phrases of the synthetic reports, as data. ``{place}``, ``{size}`` are filled from the finding's own record.

Every statement has several phrasings in the words of real reports; the words together stay few, so that a small language
model learns them.
"""

from __future__ import annotations

ABNORMAL: dict[str, tuple[str, ...]] = {
    # lung
    "nodule": (
        "A {size} mm nodule is observed in the {place}.",
        "There is a solid nodule with a diameter of {size} mm in the {place}.",
        "In the {place}, a nodule measuring {size} mm was observed.",
        "A nodule of approximately {size} mm in diameter was detected in the {place}.",
    ),
    "nodules": (
        "Multiple nodules are observed in both lungs, the largest measuring {size} mm.",
        "There are several nodules in both lungs, the largest of which is {size} mm in diameter.",
        "Nodules up to {size} mm in diameter were observed in both lungs.",
    ),
    "ground glass": (
        "A ground glass density increase of approximately {size} mm is observed in the {place}.",
        "There is an area of ground glass opacity measuring {size} mm in the {place}.",
        "In the {place}, a patchy ground glass area with a diameter of {size} mm was observed.",
        "Ground glass opacity of {size} mm is present in the {place}.",
    ),
    "consolidation": (
        "A consolidation area of approximately {size} mm with air bronchograms is observed in the {place}.",
        "There is a consolidation measuring {size} mm in the {place}.",
        "In the {place}, a consolidation with a diameter of {size} mm was observed.",
        "Consolidation of {size} mm containing air bronchograms is present in the {place}.",
    ),
    "fibrosis": (
        "Fibrotic sequela changes are observed at the {apex}.",
        "There are sequela fibrotic bands with structural distortion at the {apex}.",
        "Sequela changes and fibrotic densities were observed at the {apex}.",
        "Pleuroparenchymal fibrotic sequelae are present at the {apex}.",
    ),
    "atelectasis": (
        "Band atelectasis is observed in the {place}.",
        "There are linear atelectatic changes in the {place}.",
        "In the {place}, subsegmental atelectasis with volume loss was observed.",
        "Linear atelectasis areas are present in the {place}.",
    ),
    "bronchiectasis": (
        "Bronchiectasis is observed in the {place}.",
        "There are bronchiectatic changes in the {place}.",
        "In the {place}, tubular bronchiectasis was observed.",
        "Dilatation of the bronchi consistent with bronchiectasis is present in the {place}.",
    ),
    "emphysema": (
        "Emphysematous changes are observed in both lungs, more prominent in the upper lobes.",
        "There is emphysema in the upper lobes of both lungs.",
        "Density reductions consistent with emphysema and bullae were observed in both lungs.",
        "Both lungs are emphysematous with bullae at the apex.",
    ),
    "mosaic": (
        "A mosaic attenuation pattern is observed in both lungs.",
        "There is mosaic attenuation in both lungs.",
        "Both lungs show a mosaic attenuation pattern.",
        "Mosaic attenuation consistent with small airway disease was observed in both lungs.",
    ),
    "septal thickening": (
        "Interlobular septal thickening is observed in both lungs.",
        "There is thickening of the interlobular septa in both lungs.",
        "Interlobular septa are thickened in both lungs.",
        "Smooth interlobular septal thickenings were observed in both lungs.",
    ),
    # heart
    "cardiomegaly": (
        "Heart size has increased.",
        "The heart is larger than normal.",
        "An increase in heart size is observed.",
        "Cardiomegaly is observed.",
    ),
    "pericardial effusion": (
        "Pericardial effusion measuring {size} mm is observed.",
        "There is a pericardial effusion with a thickness of {size} mm.",
        "Pericardial fluid reaching {size} mm in thickness was observed.",
        "An effusion of {size} mm is present in the pericardial space.",
    ),
    "coronary calcification": (
        "Calcific plaques are observed in the coronary arteries.",
        "There are calcified atheroma plaques in the coronary arteries.",
        "Coronary artery wall calcifications were observed.",
        "Calcific atherosclerotic changes are present in the coronary arteries.",
    ),
    "pacemaker": (
        "A pacemaker is observed on the {place} with its lead in the right ventricle.",
        "There is a pacemaker lead in the right ventricle.",
        "A cardiac pacemaker placed from the {place} was observed.",
    ),
    # mediastinum
    "lymph nodes": (
        "Enlarged lymph nodes are observed in the {place} area, the largest measuring {size} mm.",
        "There are lymphadenopathies in the {place} area, the largest of which is {size} mm.",
        "In the {place} area, lymph nodes reaching {size} mm in diameter were observed in pathological size.",
        "Lymphadenopathy measuring {size} mm is present in the {place} area.",
    ),
    "aortic calcification": (
        "Calcific plaques are observed in the aortic wall.",
        "There are calcified atheroma plaques in the wall of the aorta.",
        "Atherosclerotic wall calcifications were observed in the aortic arch and descending aorta.",
        "Calcific atherosclerotic changes are present in the thoracic aorta.",
    ),
    "aortic dilatation": (
        "The ascending aorta measures {size} mm in diameter and is wider than normal.",
        "There is dilatation of the ascending aorta measuring {size} mm.",
        "The diameter of the ascending aorta has increased to {size} mm.",
    ),
    "catheter": (
        "A port catheter is observed with its tip in the superior vena cava.",
        "There is a central venous catheter in the superior vena cava.",
        "A catheter ending in the superior vena cava was observed.",
    ),
    # pleura
    "pleural effusion": (
        "{amount} pleural effusion measuring {size} mm in thickness is observed {hemithorax}.",
        "There is a {small} pleural effusion reaching {size} mm in thickness {hemithorax}.",
        "Pleural fluid with a thickness of {size} mm was observed {hemithorax}.",
        "A {small} pleural effusion of {size} mm is present {hemithorax}.",
    ),
    "pleural thickening": (
        "Pleural thickening is observed {hemithorax}.",
        "There is an increase in pleural thickness {hemithorax}.",
        "Diffuse thickening of the pleura was observed {hemithorax}.",
    ),
    "pleural plaque": (
        "A calcified pleural plaque is observed {hemithorax}.",
        "There is calcified plaque of the pleura {hemithorax}.",
        "Calcification of the pleura was observed {hemithorax}.",
    ),
    # trachea and bronchi
    "peribronchial thickening": (
        "Peribronchial thickening is observed in both lungs.",
        "There is thickening of the bronchial walls on both sides.",
        "Peribronchial wall thickness has increased on both sides.",
        "Thickening of the peribronchial walls was observed.",
    ),
    "tracheal diverticulum": (
        "A tracheal diverticulum of {size} mm is observed on the right of the trachea.",
        "There is an air cyst of {size} mm at the right posterior of the trachea.",
        "A diverticulum measuring {size} mm was observed in the right wall of the trachea.",
    ),
    "secretion": (
        "Secretion is observed in the {place} main bronchus.",
        "There is mucus in the lumen of the {place} main bronchus.",
        "Secretion narrowing the lumen was observed in the {place} main bronchus.",
    ),
    # esophagus
    "hiatal hernia": (
        "A hiatal hernia measuring {size} mm is observed.",
        "There is a sliding hiatal hernia with a diameter of {size} mm.",
        "Hiatal hernia of approximately {size} mm was observed at the lower end of the esophagus.",
        "Herniation of the stomach through the hiatus measuring {size} mm is present, consistent with hiatal hernia.",
    ),
    "esophageal thickening": (
        "An increase in wall thickness is observed in the thoracic esophagus.",
        "There is diffuse wall thickening of the esophagus.",
        "The walls of the thoracic esophagus are thicker than normal.",
    ),
    # abdomen
    "liver cyst": (
        "A cyst of {size} mm is observed in the right lobe of the liver.",
        "There is a hypodense cystic lesion of {size} mm in the liver.",
        "In the liver, a hypodense lesion with a diameter of {size} mm consistent with a cyst was observed.",
    ),
    "steatosis": (
        "Liver density has decreased in line with steatosis.",
        "There is a decrease in liver density consistent with steatosis.",
        "The liver is diffusely hypodense in line with fatty change.",
    ),
    "splenomegaly": (
        "The spleen is larger than normal.",
        "Spleen size has increased.",
        "There is an increase in the size of the spleen.",
    ),
    "gallstone": (
        "A stone of {size} mm is observed in the gallbladder.",
        "There is a calculus measuring {size} mm in the gallbladder.",
        "A gallbladder stone with a diameter of {size} mm was observed.",
    ),
    # bone
    "degeneration": (
        "Degenerative changes are observed in the vertebrae.",
        "There are osteophytes at the vertebral corners.",
        "Osteophytic degenerative changes were observed in the thoracic vertebrae.",
    ),
    "compression": (
        "Height loss is observed in a thoracic vertebra, consistent with compression fracture.",
        "There is a compression fracture in the thoracic vertebrae.",
        "Loss of height consistent with compression was observed in a thoracic vertebral corpus.",
    ),
    "rib sclerosis": (
        "A sclerotic lesion is observed in a {place} rib.",
        "There is a sclerotic bone lesion in one of the ribs on the {place}.",
        "A sclerotic area was observed at the lateral part of a {place} rib.",
    ),
    "sternal wires": (
        "Metallic sutures are observed in the sternum.",
        "There are metallic sternotomy sutures secondary to the operation.",
        "Sternotomy wires were observed in the sternum.",
    ),
    # thyroid
    "thyroid nodule": (
        "A hypodense nodule of {size} mm is observed in the {place} thyroid lobe.",
        "There is a hypodense nodule with a diameter of {size} mm in the {place} thyroid lobe.",
        "In the {place} lobe of the thyroid gland, a nodule measuring {size} mm was observed.",
    ),
    "goitre": (
        "Thyroid gland sizes have increased on both sides.",
        "The thyroid gland is larger than normal and its parenchyma is heterogeneous.",
        "An increase in the size of both thyroid lobes is observed.",
    ),
    # breast
    "breast nodule": (
        "A nodular lesion of {size} mm is observed in the {place} breast.",
        "There is a solid nodular lesion with a diameter of {size} mm in the {place} breast.",
        "In the {place} breast, a well-defined lesion measuring {size} mm was observed.",
    ),
    "breast calcification": (
        "Coarse calcifications are observed in the {place} breast.",
        "There are coarse calcification foci in the {place} breast.",
        "In the {place} breast, calcific foci were observed.",
    ),
    "gynecomastia": (
        "Bilateral gynecomastia was observed in the retroareolar areas.",
        "There is glandular tissue in both retroareolar areas consistent with gynecomastia.",
        "An appearance compatible with gynecomastia is observed on both sides.",
    ),
}
"""Kind of finding -> its phrasings."""

NORMAL: dict[str, tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]] = {
    "lung": (
        (
            "",
            ("*",),
            (
                "Aeration of both lung parenchyma is normal and no nodular or infiltrative lesion is detected.",
                "No mass, nodule or infiltration was detected in both lungs.",
                "Both lungs are well aerated and no active infiltration or mass lesion was observed.",
            ),
        ),
        (
            "",
            ("nodule", "nodules"),
            (
                "No mass or nodule was detected in both lungs.",
                "There is no nodular lesion in the lung parenchyma.",
                "No nodule was observed in both lungs.",
            ),
        ),
        (
            "",
            ("consolidation", "ground glass"),
            (
                "No active infiltration was detected in both lungs.",
                "There was no finding in favor of pneumonia.",
                "No consolidation or ground glass area was observed.",
            ),
        ),
    ),
    "heart": (
        (
            "first",
            ("cardiomegaly",),
            (
                "Heart contour and size are normal.",
                "The heart size and contour appear natural.",
                "Heart dimensions are within normal limits.",
            ),
        ),
        (
            "",
            ("pericardial effusion",),
            (
                "Pericardial effusion-thickening was not observed.",
                "No pericardial effusion was detected.",
                "There is no pericardial effusion or thickening.",
            ),
        ),
        (
            "",
            ("coronary calcification",),
            (
                "No calcification was observed in the coronary arteries.",
                "The coronary arteries are free of calcific plaques.",
                "Coronary artery calcification was not detected.",
            ),
        ),
    ),
    "mediastinum": (
        (
            "first",
            ("aortic dilatation",),
            (
                "Mediastinal main vascular structures are normal in width.",
                "Thoracic aorta diameter is normal.",
                "No dilatation was detected in the thoracic aorta.",
            ),
        ),
        (
            "",
            ("lymph nodes",),
            (
                "No enlarged lymph nodes in pathological dimensions were detected in the mediastinum.",
                "No pathological lymph node was observed in the mediastinum.",
                "Lymph nodes in pathological size and appearance were not detected.",
            ),
        ),
    ),
    "pleura": (
        (
            "first",
            ("pleural effusion", "pleural thickening"),
            (
                "Pleural effusion-thickening was not detected in both hemithorax.",
                "No pleural effusion or thickening was observed on both sides.",
                "Bilateral pleural thickening-effusion was not detected in the examination.",
            ),
        ),
        (
            "",
            ("pleural effusion",),
            (
                "No pleural effusion was detected.",
                "Pleural effusion was not observed.",
                "There is no pleural effusion on both sides.",
            ),
        ),
        (
            "",
            ("pleural thickening", "pleural plaque"),
            (
                "No pleural thickening or plaque was detected.",
                "The pleural surfaces are otherwise smooth.",
                "Pneumothorax was not observed.",
            ),
        ),
    ),
    "trachea and bronchie": (
        (
            "first",
            ("tracheal diverticulum", "secretion"),
            (
                "Trachea and both main bronchi are open.",
                "The trachea and main bronchi are in the midline and no occlusive pathology was detected.",
                "Trachea, both main bronchi are open and their calibration is natural.",
            ),
        ),
        (
            "",
            ("peribronchial thickening",),
            (
                "No bronchial wall thickening was observed.",
                "The bronchial walls are of normal thickness.",
                "Peribronchial thickening was not detected.",
            ),
        ),
    ),
    "esophagus": (
        (
            "first",
            ("esophageal thickening",),
            (
                "Thoracic esophagus calibration was normal and no significant pathological wall thickening was detected.",
                "No pathological wall thickness increase was observed in the esophagus within the sections.",
                "The esophagus is of normal calibration and its wall thickness is natural.",
            ),
        ),
        (
            "",
            ("hiatal hernia",),
            (
                "Hiatal hernia was not observed.",
                "No hiatal hernia was detected.",
                "There is no sign of hiatal hernia.",
            ),
        ),
    ),
    "abdomen": (
        (
            "",
            ("*",),
            (
                "Upper abdominal organs included in the sections are normal.",
                "No significant pathology was detected in the upper abdominal sections.",
                "Upper abdominal sections entering the examination area are natural.",
            ),
        ),
        (
            "",
            ("liver cyst", "steatosis"),
            (
                "No space-occupying lesion was detected in the liver that entered the sections.",
                "The liver is of normal size and density.",
                "Liver parenchyma density is natural.",
            ),
        ),
        (
            "",
            ("splenomegaly",),
            (
                "The spleen is of normal size.",
                "Spleen dimensions are natural.",
                "The size of the spleen is normal.",
            ),
        ),
    ),
    "bone": (
        (
            "",
            ("rib sclerosis",),
            (
                "No lytic-destructive lesion was detected in bone structures.",
                "No lytic or destructive lesion was observed in the bone structures within the sections.",
                "Bone structures in the study area are natural.",
            ),
        ),
        (
            "",
            ("compression",),
            (
                "Vertebral corpus heights are preserved.",
                "Thoracic vertebral corpus heights and alignments are normal.",
                "The heights of the vertebral bodies are preserved.",
            ),
        ),
    ),
    "thyroid": (
        (
            "",
            ("*",),
            (
                "The dimensions and contours of the thyroid gland appear natural.",
                "Thyroid gland sizes are natural and no nodule was detected.",
                "The thyroid gland is of normal size and density.",
            ),
        ),
        (
            "",
            ("goitre",),
            (
                "Thyroid gland sizes are within normal limits.",
                "The size of the thyroid gland is natural.",
                "The gland is not enlarged.",
            ),
        ),
    ),
    "breast": (
        (
            "",
            ("*",),
            (
                "Both breasts are of normal appearance and no lesion was detected.",
                "No mass lesion was observed in both breasts.",
                "Both breast and subcutaneous fatty tissues are normal.",
            ),
        ),
        (
            "",
            ("gynecomastia",),
            (
                "The skin and subcutaneous fatty tissues are natural.",
                "No pathological lymph node was observed in both axillae.",
                "Both axillary regions are natural.",
            ),
        ),
    ),
}
"""Region -> statements of what is not there: when it is said ("first" before the findings), the kinds that rule it out
("*" is any finding of the region), and its phrasings."""
